"""Where an artefact leaves its student."""
