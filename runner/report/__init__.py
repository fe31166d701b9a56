"""The page of ``gpurun report``: what it is made of (``blocks.py``), and that as one HTML file (``page.py``). Pure: texts in, text out."""
