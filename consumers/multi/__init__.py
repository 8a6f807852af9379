"""Books of several exchanges as one: conversion, consolidation, opportunities."""
