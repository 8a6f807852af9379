#!/bin/sh
# Your own certificate authority, and a server certificate from it.
#   make_certificates.sh DIRECTORY DNS:redis,DNS:localhost,IP:127.0.0.1
set -eu
umask 077
directory=$1 names=$2

if [ -e "$directory/ca.crt" ]; then
    echo "error: $directory/ca.crt is there already: remove $directory for new certificates" >&2
    exit 1
fi
mkdir -p "$directory"
cd "$directory"
new_key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

# shellcheck disable=SC2086 # several words on purpose
{
    openssl req -x509 $new_key -keyout ca.key -out ca.crt -days 3650 -subj "/CN=bookbus authority" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
    openssl req $new_key -keyout server.key -out server.csr -subj "/CN=bookbus server"
    printf '%s\n' "subjectAltName=$names" "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
        "extendedKeyUsage=serverAuth,clientAuth" "authorityKeyIdentifier=keyid" > server.ext
    openssl x509 -req -in server.csr -extfile server.ext -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out server.crt
} 2> openssl.log || {
    cat openssl.log >&2
    rm -f ca.crt
    exit 1
}
rm -f server.csr server.ext ca.srl openssl.log
chmod 644 ca.crt server.crt
