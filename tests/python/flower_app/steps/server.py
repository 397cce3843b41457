"""Flower builds no app without one. Ours is Revoada's, so that nothing runs this."""

from flwr.serverapp import ServerApp

app = ServerApp()
