"""The vocabulary: every metric, label and default, declared once.

Everything that leaves the process under a name leaves it through an object declared here: the exposition, the
documentation tables, rules and alerts, and later dashboards import the same constants. Standard library only.
"""
