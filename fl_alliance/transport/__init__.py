"""Carry bytes between parties: in one process for tests, and over Flower with mutual TLS."""
