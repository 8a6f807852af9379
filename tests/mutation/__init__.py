"""Mutation testing of the synchronisation core and the publish script: do the tests notice each small mistake?

No library does this as a whole. None mutates Lua. cosmic-ray and mutmut number their mutants by position, so that a
list of explained survivors is void after any edit. Neither removes statements or makes conditions always true, which
nearly half of our mutants do; mutmut leaves out properties and module constants, and cosmic-ray changes the sources in
place.
"""
