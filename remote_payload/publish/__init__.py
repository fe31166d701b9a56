"""Publishing a model's folder on the Hub, from the laptop and from the box: ``contents`` (which files, ``scrub`` without local paths and
secrets), ``card`` (the finished README.md), ``repository`` (what is there already), ``upload``."""
