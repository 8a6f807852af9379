"""Several exchanges as one: conversion, consolidation, opportunities."""
