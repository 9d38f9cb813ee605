"""`--mode=serve`: the page of a run with names saved at once and new images drawn on demand.

The only package that needs Starlette and uvicorn, the extra `serve`.
"""
