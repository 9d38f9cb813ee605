"""`--mode=serve`: the page of a run with what needs a process, names saved at once and new images.

The one part that needs Starlette and uvicorn, the extra `serve`.
"""
