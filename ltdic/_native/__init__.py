"""The bindings of the C library, one module for each of its layers: `codec`, `engine`, `net` and
`service`. A module uses those that are named before it here. Outside of this package nobody looks
into what C has made."""
