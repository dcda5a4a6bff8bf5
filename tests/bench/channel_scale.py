"""How long finding the groups of a decoder takes, by its size: graphopt, and Torch-Pruning on the same shape.

``python tests/bench/channel_scale.py [--layers 2 22] [--limit 600]``; each tool in a process of its own. Torch-Pruning
needs the model's source and its weights in memory, graphopt neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.llama import llama

GRAPHOPT = """
import json, resource, sys, time
import graphopt.channels.analysis, graphopt.proto
began = time.perf_counter()
graph = graphopt.channels.analyze(sys.argv[1])
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "groups": len(graph.groups)}))
"""

TORCH_PRUNING = """
import json, sys, time
import torch, torch_pruning
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=2048, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632,
                     vocab_size=32000, num_hidden_layers=int(sys.argv[1]), attn_implementation="eager", use_cache=False)
torch.manual_seed(0)
with torch.device("cpu"):
    torch.nn.init.kaiming_uniform_ = torch.nn.init.uniform_ = lambda tensor, *_, **__: tensor
    model = LlamaForCausalLM(config).eval()
ids = torch.ones(1, 8, dtype=torch.long)
began = time.perf_counter()
graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs={"input_ids": ids},
                                                        output_transform=lambda out: out.logits)
built = time.perf_counter() - began
groups = sum(1 for _ in graph.get_all_groups(root_module_types=[torch.nn.Linear, torch.nn.Embedding]))
print(json.dumps({"seconds": time.perf_counter() - began, "built": built, "groups": groups}))
"""


def run(program: str, argument: str, limit: float) -> str:
    """What the program measured, in words."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, argument], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode:
        return f"fails: {done.stderr.strip().splitlines()[-1][:100]}"
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:.2f} s, {found['groups']} groups"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 22])
    parser.add_argument("--limit", type=float, default=600, help="seconds for each run")
    options = parser.parse_args()
    for layers in options.layers:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "llama.onnx"
            size = llama(path, layers)
            print(f"{layers} layers, {size / 4e9:.2f} billion parameters", flush=True)
            print(f"  graphopt       {run(GRAPHOPT, str(path), options.limit)}", flush=True)
        print(f"  Torch-Pruning  {run(TORCH_PRUNING, str(layers), options.limit)}", flush=True)


if __name__ == "__main__":
    main()
