"""Listening: a page on this machine, and the HTTP interface that it uses.

`server` is the door. `app` answers requests, behind `guard`; `runner` separates one song after the
other, each in a process of its own (`worker`); `store` keeps songs and results as plain files;
`sounds` makes what is shown and taken away. Starlette and uvicorn, the extra ``web``, are imported
in this room only.
"""
