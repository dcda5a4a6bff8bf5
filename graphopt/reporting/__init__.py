"""What reports have in common: pictures, and trackers that follow a run."""
