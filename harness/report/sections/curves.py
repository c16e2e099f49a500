"""How did training progress?"""

from __future__ import annotations

from harness.report.section import FigureSpec, Section

SECTION = Section(
    anchor="curves",
    heading="Learning curves",
    question="How did training progress?",
    figure=FigureSpec(
        "curves.curves",
        "Left the dev score, right the training loss (running mean), one line per run. The dashed lines are the "
        "score to beat, and the loss of what knows no more than how frequent the answers are, as the key names them: a "
        "run whose loss stays there has learned nothing.",
    ),
    more_figures=(
        FigureSpec(
            "outcome_curves.outcome_curves",
            "The median of failed and near-chance runs and that of the others, over the share of training done; bands "
            "hold 80 % of the runs of a kind. Where they part, a failure begins to show.",
        ),
    ),
)
