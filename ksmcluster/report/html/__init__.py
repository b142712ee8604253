"""Reports and notebook cells as HTML, from templates. Nothing in them is fetched from anywhere."""
