"""Shared by the tests of the report: texts that would like to be a formula, markup or a page of their own."""

HOSTILE = [
    "<script>alert(1)</script>", "a|b", "$x$", r"\input{x}", "=cmd()", "+1", "-1+1", "@SUM(A1)", "\t=1", "＝1+1",
    "&amp;", "*bold* _under_", "`code`", "[link](http://x)", "~~no~~", "^up", "#1", "50 %", '"quoted", \'too\'',
    "a\nb", "emoji 😀", "עברית", "\u202eabc", " ", "ω² × τ ± ∞", "{brace}", "a & b \\\\ c", "* star",
]  # fmt: skip
