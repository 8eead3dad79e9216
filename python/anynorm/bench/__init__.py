# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm bench``: anynorm beside its peers, on the same arrays, in one process, taking turns.

`shapes` reads the list of cases, `contestants` says who runs them and how, `laps` measures, `suite` runs every case,
and `report` and `chart` show what came out. Nothing here is imported by ``import anynorm``.
"""
