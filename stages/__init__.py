"""One thin file per DVC stage, run as `python -m stages.<name>` from the project's top folder."""
