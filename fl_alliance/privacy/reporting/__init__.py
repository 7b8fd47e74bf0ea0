"""The privacy report as a lawyer reads it: facts, said once in words, printed as an HTML page or as a PDF.

facts.py       numbers of one job and its data set, each recomputed from the ledger
empirical.py   what an audit with canaries found, recomputed from its guesses
content.py     what the numbers mean, in words of one language: the document that both printers print
closing.py     its end: assumptions, what is covered and what is not, how to check it
appendix.py    the same facts under the names of the DP Deployments Registry and of NIST SP 800-226
figures.py     pictures, in black and white (matplotlib)
page.py        the document as one HTML file (Jinja2)
pdf.py         the document as a PDF (fpdf2)
words.py       the catalogue of languages (gettext)
"""

from __future__ import annotations
