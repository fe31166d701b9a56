"""From what a workflow returns to the document that ``--json`` prints: one function a document, or a part of one.

The files are those of runner/cli/documents, which holds the types.
"""
