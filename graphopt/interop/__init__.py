"""Other tools' models and passes, in and out."""
