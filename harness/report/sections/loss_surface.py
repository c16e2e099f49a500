"""What does the loss look like between the weights of two runs?"""

from __future__ import annotations

from harness.report.section import FigureSpec, Section

SECTION = Section(
    anchor="surface",
    heading="Loss surface",
    question="What does the loss look like between the weights of two runs?",
    figure=FigureSpec(
        "diagnosis.loss_surface",
        "Contours of loss and gradient norm in the plane through the pretrained weights and those of two runs of one "
        "recipe, on logarithmic scales; distances in the picture are distances between weights. Without dropout, with "
        "the head that the first run started from.",
    ),
)
