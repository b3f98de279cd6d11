# OpenSSL: prints results that are equal on every machine. Runs in a folder with data, keys and signatures of the host.
set -e
for d in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 sha3-512 blake2b512 blake2s256 ripemd160 sm3 shake128; do
	if openssl dgst -$d data >/dev/null 2>&1; then openssl dgst -$d -r data; else echo "no $d"; fi
done
openssl dgst -sha256 -hmac secret -r data
K=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f IV=0f0e0d0c0b0a09080706050403020100
for c in aes-128-cbc aes-256-cbc aes-128-ctr aes-256-ctr aes-256-ecb aes-128-cfb aes-256-ofb camellia-256-cbc aria-256-cbc chacha20 \
	des-ede3-cbc sm4-cbc; do
	n=64
	case $c in *128*|sm4*) n=32 ;; des*) n=48 ;; esac
	k=$(echo $K | cut -c 1-$n)
	v=$IV
	case $c in des*) v=0f0e0d0c0b0a0908 ;; esac
	printf '%s ' "$c"
	case $c in *ecb) openssl enc -$c -K $k -in data -out enc ;; *) openssl enc -$c -K $k -iv $v -in data -out enc ;; esac
	md5sum < enc
	case $c in *ecb) openssl enc -d -$c -K $k -in enc -out dec ;; *) openssl enc -d -$c -K $k -iv $v -in enc -out dec ;; esac
	cmp data dec
done
openssl dgst -sha256 -sign rsa.pem data | md5sum
openssl pkeyutl -sign -inkey ed25519.pem -rawin -in small | md5sum
for k in ec256 ec384 ec521; do
	openssl dgst -sha256 -verify $k.pub -signature $k.sig data
	openssl dgst -sha256 -sign $k.pem -out own.sig data
	openssl dgst -sha256 -verify $k.pub -signature own.sig data
	openssl pkeyutl -derive -inkey $k.pem -peerkey $k.peer.pub | md5sum
done
openssl dgst -sha256 -verify rsa.pub -signature rsa.sig data
if openssl dgst -sha256 -verify rsa.pub -signature ec256.sig data 2>/dev/null; then echo 'a wrong signature passes'; fi
openssl pkeyutl -derive -inkey x25519.pem -peerkey x25519.peer.pub | md5sum
openssl genrsa -out fresh.pem 2048 2>/dev/null
openssl rsa -in fresh.pem -check -noout
openssl prime -hex FFFFFFFFFFFFFFC5 FFFFFFFFFFFFFFC7
