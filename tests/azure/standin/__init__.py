"""A stand-in for Azure on this machine, for the real clients.

It is an HTTPS proxy: az and azureml-sdk keep Azure's host names, and their requests end here. What it
answers is what Azure answers where that is public; beside each route stands its source, or the word
*assumed*. What Azure refuses it refuses, and every route it does not know. It is not Azure: a client
that passes here is known to speak the protocol, no more.
"""
