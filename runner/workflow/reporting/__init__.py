"""``gpurun report``: gathers what this machine knows of runs, and writes it as one page (``runner/report``)."""
