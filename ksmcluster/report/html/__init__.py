"""Reports and notebook cells as HTML, from templates. They load nothing from the network."""
