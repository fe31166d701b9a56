"""llama.cpp's own programs on this machine: its converter, in an environment of its own, ``llama-quantize`` and ``llama-server``.

Nothing of llama.cpp is part of gpurun: ``LLAMA_CPP_DIR`` names its folder, or it is installed and on PATH.
"""
