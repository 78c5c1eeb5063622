"""From a trained estimator to a bundle: conversion, the proof that nothing changed, the build context."""
