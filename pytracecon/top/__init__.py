"""`pytracecon top`: who talks to whom, how much and how fast, on a screen that is kept open.

    feed ─▶ rows ─▶ view ─▶ frame ─▶ app, or once

`feed` has the tracer, `rows` adds up, `view` is what the user chose to see, `frame` and `pages` make lines of text of
that, and `app` shows them on a terminal. Only `app` and `terminal` know textual; only `feed` knows a tracer.
"""
