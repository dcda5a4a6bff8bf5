"""What reports have in common: pictures, trackers that follow a run, and a compression as HTML and Markdown."""
