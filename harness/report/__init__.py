"""Tables become sentences, figures and pages."""
