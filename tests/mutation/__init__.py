"""Small mistakes made on purpose in the synchronisation core and the publish script: do the tests notice?"""
