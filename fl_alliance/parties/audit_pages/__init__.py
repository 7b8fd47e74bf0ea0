"""`fl-alliance auditor serve`: local, read-only pages of evidence that was verified before the first of them is shown.

evidence.py   what was verified, by house (an institution's data set), by job, and what did not hold
proofs.py     one ledger entry, verified again from the files when its page is asked for
what_if.py    one more job: the institution's own rules and accountants say what it would cost, or why not
charts.py     pictures as SVG, without a library
blocks.py     what a page is made of beside the report's paragraphs and tables
overview.py, houses.py, jobs.py, entries.py    the pages, as blocks; no markup in them but links
printing.py   a page as HTML (Jinja2), with the look of the privacy report
app.py        routes, methods, headers (starlette)
serving.py    a listener on 127.0.0.1 and nowhere else (uvicorn)
"""

from __future__ import annotations
