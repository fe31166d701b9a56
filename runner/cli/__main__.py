"""``python -m runner.cli`` is ``gpurun``."""

from runner.cli.main import main

main()
