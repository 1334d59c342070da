"""The demonstration: a programme of guaranteed orders in the summer of 2015, and its story told from the ledger.

* ``cast``     who takes part: merchants, buyers, carriers, staff
* ``plans``    what is going to happen to each order, drawn from the seed
* ``journeys`` what carriers say about a parcel: late, twice, out of order, and sometimes wrong
* ``world``    how everybody acts on what happens: buyers pay, merchants answer, the provider pays out
* ``running``  the programme relived into a ledger, once
* ``story``    what an auditor, a finance person and a handler ask first, answered from the ledger

Nothing in here looks at a clock: the same seed makes the same log, byte for byte.
"""
