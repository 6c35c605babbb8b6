module sallyport/bench

go 1.26.0

replace sallyport => ../

require (
	github.com/nix-community/go-nix v0.0.0-20250101154619-4bdde671e0a1
	sallyport v0.0.0-00010101000000-000000000000
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)
