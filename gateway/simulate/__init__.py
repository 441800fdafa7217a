"""A hospital in a box: Sectra, a DICOMweb archive and Milvue as real HTTP servers, for demo and tests.

Written from the protocols alone. Nothing here shares code with the rest of the project, so that a mistake on
one side of a wire isn't repeated on the other.
"""
