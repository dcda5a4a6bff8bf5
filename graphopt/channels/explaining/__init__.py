"""Why channels go together, what it saves, and pictures of it.

``ties`` and ``index`` find the operators that tie one layer to another, ``explanation`` says it in words (``wording``),
``savings`` counts, ``data`` gives JSON, ``render`` tables, ``drawing``, ``layout`` and ``svg`` a picture.
"""
