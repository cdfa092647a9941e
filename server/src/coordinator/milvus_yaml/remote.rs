//! The object store as Milvus reads it: its address with or without a port, and whose store it is.

use crate::coordinator::settings::RemoteStorage;

/// Part of the addresses of Google's and of Alibaba's stores: Milvus goes by them where the provider
/// is not named.
const GOOGLE_HOST: &str = "storage.googleapis.com";
const ALIYUN_HOST: &str = "aliyuncs.com";

/// # Errors
/// The address is none, or the store is one that is not spoken here.
pub(super) fn checked(mut storage: RemoteStorage) -> Result<RemoteStorage, String> {
    if let Some((host, port)) = host_and_port(&storage)? {
        (storage.address, storage.port) = (host, port);
    }
    let refuse = |why: &str| {
        Err(format!(
            "minio.cloudProvider = `{}`, minio.useIAM = {}, minio.address = `{}`: {why}; supported \
             are stores with an S3 API and signatures of version 4: `aws` with keys or with roles, \
             MinIO and others as `aws` with keys, `aliyun` with keys",
            storage.cloud_provider, storage.use_iam, storage.address
        ))
    };
    match Provider::of(&storage) {
        Provider::Azure => refuse("Azure's blob store is not supported"),
        Provider::Google => refuse("Google's tokens and signatures of version 2 are not supported"),
        Provider::Aliyun if storage.use_iam => refuse("Alibaba's roles are not supported"),
        Provider::Aliyun => {
            // It takes no other form.
            storage.has_bucket_in_host = true;
            Ok(storage)
        }
        Provider::S3 => {
            storage.has_bucket_in_host = storage.use_virtual_host;
            Ok(storage)
        }
    }
}

enum Provider {
    S3,
    Google,
    Aliyun,
    Azure,
}

impl Provider {
    fn of(storage: &RemoteStorage) -> Provider {
        match storage.cloud_provider.as_str() {
            "azure" => Provider::Azure,
            "gcp" => Provider::Google,
            "aliyun" => Provider::Aliyun,
            _ if storage.address.contains(GOOGLE_HOST) => Provider::Google,
            _ if storage.address.contains(ALIYUN_HOST) => Provider::Aliyun,
            // As Milvus does with names that it does not know.
            _ => Provider::S3,
        }
    }
}

/// An address that names a port has it from there, not from `minio.port`.
fn host_and_port(storage: &RemoteStorage) -> Result<Option<(String, u16)>, String> {
    let address = &storage.address;
    let refuse = || {
        format!(
            "minio.address = `{address}`: HOST or HOST:PORT is expected, [ADDRESS]:PORT for IPv6"
        )
    };
    let Some((host, port)) = address.rsplit_once(':') else { return Ok(None) };
    if address.ends_with(']') {
        let port = if storage.use_ssl { 443 } else { 80 };
        return Ok(Some((address.clone(), port)));
    }
    let is_host = !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
    match port.parse() {
        Ok(port) if is_host && port != 0 => Ok(Some((host.to_owned(), port))),
        Ok(_) | Err(_) => Err(refuse()),
    }
}
