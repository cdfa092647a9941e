//! The keys that we take, with their units, and those that an operator may wonder about.

use std::time::Duration;

use super::{Fate, remote};
use crate::coordinator::allowed::Allowed;
use crate::coordinator::settings::{CoordinatorSettings, RemoteStorage, Storage};

/// Settings that are being gathered.
pub(super) struct Draft {
    settings: CoordinatorSettings,
    pub(super) remote: bool,
    local_path: Option<String>,
    storage: RemoteStorage,
    bound: bool,
    bound_address: String,
    bound_node: i64,
    ticks_by_rpc: bool,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            settings: CoordinatorSettings::default(),
            remote: false,
            local_path: None,
            storage: RemoteStorage {
                address: "localhost".to_owned(),
                port: 9000,
                access_key_id: "minioadmin".to_owned(),
                secret_access_key: "minioadmin".to_owned(),
                bucket: "a-bucket".to_owned(),
                root_path: "files".to_owned(),
                cloud_provider: "aws".to_owned(),
                request_timeout: Duration::from_secs(10),
                ..RemoteStorage::default()
            },
            bound: false,
            bound_address: "localhost:22930".to_owned(),
            bound_node: 0,
            ticks_by_rpc: true,
        }
    }
}

impl Draft {
    pub(super) fn finish(self) -> Result<CoordinatorSettings, String> {
        let shown = |key: &Key| match key.is_secret() {
            true => HIDDEN.to_owned(),
            false => (key.show)(&self),
        };
        let effective = KEYS.iter().map(|key| (key.name, shown(key))).collect();
        let mut settings = self.settings;
        settings.effective = effective;
        if self.remote {
            settings.storage = Storage::Remote(remote::checked(self.storage)?);
        } else if let Some(path) = self.local_path {
            settings.storage = Storage::Local { path };
        }
        settings.bound_index_node = self.bound.then_some((self.bound_address, self.bound_node));
        if settings.small_proportion > settings.compactable_proportion {
            return Err(format!(
                "dataCoord.segment.compactableProportion = {} must not be below \
                 dataCoord.segment.smallProportion = {}",
                settings.compactable_proportion, settings.small_proportion
            ));
        }
        if settings.compaction_min_segments > settings.compaction_max_segments {
            return Err(format!(
                "dataCoord.compaction.min.segment = {} must not be above \
                 dataCoord.compaction.max.segment = {}",
                settings.compaction_min_segments, settings.compaction_max_segments
            ));
        }
        Ok(settings)
    }
}

/// A key, and what becomes of its text; an error says what would be right.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) take: fn(&mut Draft, &str) -> Result<(), String>,
    pub(super) show: fn(&Draft) -> String,
}

/// What stands in the place of a secret wherever settings are shown.
pub(super) const HIDDEN: &str = "(hidden)";

impl Key {
    fn is_secret(&self) -> bool {
        self.name.to_ascii_lowercase().contains("secret")
    }

    /// Whether an empty text is a value: the root of the bucket, calls that are not signed.
    pub(super) fn may_be_empty(&self) -> bool {
        matches!(self.name, "minio.rootPath" | "minio.accessKeyID" | "minio.secretAccessKey")
    }
}

/// Keys by their names in older versions; where both are given, the newer name wins.
pub(super) const FALLBACKS: [(&str, &str); 4] = [
    ("common.chanNamePrefix.cluster", "msgChannel.chanNamePrefix.cluster"),
    ("common.chanNamePrefix.dataCoordTimeTick", "msgChannel.chanNamePrefix.dataCoordTimeTick"),
    ("common.chanNamePrefix.dataCoordStatistic", "msgChannel.chanNamePrefix.dataCoordStatistic"),
    (
        "common.chanNamePrefix.dataCoordSegmentInfo",
        "msgChannel.chanNamePrefix.dataCoordSegmentInfo",
    ),
];

macro_rules! keys {
    ($($name:literal => $($field:ident).+ = $read:ident;)*) => {
        pub(super) static KEYS: &[Key] = &[$(Key {
            name: $name,
            take: |draft, text| {
                draft.$($field).+ = $read(text)?;
                Ok(())
            },
            show: |draft| Shown { value: &draft.$($field).+, unit: $read }.text(),
        },)*];
    };
}

keys! {
    "dataCoord.channel.watchTimeoutInterval" => settings.watch_timeout = seconds;
    "dataCoord.channel.balanceSilentDuration" => settings.balance_silent = seconds;
    "dataCoord.channel.balanceInterval" => settings.balance_interval = seconds;
    "dataCoord.minDataNodes" => settings.data_nodes_min = size;
    "dataCoord.autoBalance" => settings.auto_balance = truth;
    "dataCoord.segment.maxSize" => settings.segment_max_size_mb = positive;
    "dataCoord.segment.diskSegmentMaxSize" => settings.disk_segment_max_size_mb = positive;
    "dataCoord.segment.sealProportion" => settings.seal_proportion = share;
    "dataCoord.segment.assignmentExpiration" => settings.assignment_expiration = milliseconds;
    "dataCoord.segment.maxLife" => settings.segment_max_life = seconds;
    "dataCoord.segment.maxIdleTime" => settings.segment_max_idle = seconds;
    "dataCoord.segment.minSizeFromIdleToSealed" => settings.min_size_from_idle_mb = number;
    "dataCoord.segment.maxBinlogFileNumber" => settings.max_binlog_files = count;
    "dataCoord.sealPolicy.channel.growingSegmentsMemSize" =>
        settings.channel_growing_max_mb = positive;
    "dataCoord.segment.smallProportion" => settings.small_proportion = share;
    "dataCoord.segment.compactableProportion" => settings.compactable_proportion = share;
    "dataCoord.segment.expansionRate" => settings.expansion_rate = factor;
    "dataCoord.segment.reserve" => settings.segment_reserve = share;
    "dataCoord.enableCompaction" => settings.enable_compaction = truth;
    "dataCoord.compaction.enableAutoCompaction" => settings.enable_auto_compaction = truth;
    "dataCoord.compaction.indexBasedCompaction" => settings.index_based_compaction = truth;
    "dataCoord.compaction.rpcTimeout" => settings.compaction_rpc_timeout = seconds;
    "dataCoord.compaction.maxParallelTaskNum" => settings.compaction_parallel_max = size;
    "dataCoord.compaction.workerMaxParallelTaskNum" => settings.compaction_per_worker_max = size;
    "dataCoord.compaction.min.segment" => settings.compaction_min_segments = size;
    "dataCoord.compaction.max.segment" => settings.compaction_max_segments = size;
    "dataCoord.compaction.timeout" => settings.compaction_timeout = seconds;
    "dataCoord.compaction.check.interval" => settings.compaction_check_interval = seconds;
    "dataCoord.compaction.global.interval" => settings.compaction_global_interval = seconds;
    "dataCoord.compaction.single.ratio.threshold" => settings.single_ratio = share;
    "dataCoord.compaction.single.deltalog.maxsize" => settings.single_delta_size_bytes = number;
    "dataCoord.compaction.single.deltalog.maxnum" => settings.single_delta_files_max = count;
    "dataCoord.compaction.single.expiredlog.maxsize" =>
        settings.single_expired_size_bytes = number;
    "dataCoord.autoUpgradeSegmentIndex" => settings.auto_upgrade_index = truth;
    "dataCoord.enableGarbageCollection" => settings.enable_gc = truth;
    "dataCoord.gc.interval" => settings.gc_interval = seconds;
    "dataCoord.gc.missingTolerance" => settings.gc_missing_tolerance = seconds;
    "dataCoord.gc.dropTolerance" => settings.gc_drop_tolerance = seconds;
    "dataCoord.gc.removeConcurrent" => settings.gc_remove_concurrent = size;
    "dataCoord.gc.removesPerSecond" => settings.gc_removes_per_s = count;
    "dataCoord.gc.dryRun" => settings.gc_dry_run = truth;
    "indexCoord.segment.minSegmentNumRowsToEnableIndex" => settings.index_min_rows = number;
    "indexCoord.scheduler.interval" => settings.index_scheduler_interval = milliseconds;
    "indexCoord.bindIndexNodeMode.enable" => bound = truth;
    "indexCoord.bindIndexNodeMode.address" => bound_address = text;
    "indexCoord.bindIndexNodeMode.nodeID" => bound_node = number;
    "indexCoord.allowedNodes" => settings.allowed_index_nodes = allowed;
    "rootCoord.importTaskExpiration" => settings.import_task_expiration = seconds;
    "dataNode.segment.binlog.maxsize" => settings.binlog_max_size_bytes = number;
    "dataNode.timetick.byRPC" => ticks_by_rpc = only_true;
    "common.entityExpiration" => settings.entity_expiration = expiration;
    "common.session.ttl" => settings.session_ttl = seconds;
    "common.storageType" => remote = is_remote;
    "msgChannel.chanNamePrefix.cluster" => settings.cluster = text;
    "msgChannel.chanNamePrefix.dataCoordTimeTick" => settings.time_tick_channel = text;
    "msgChannel.chanNamePrefix.dataCoordStatistic" => settings.statistics_channel = text;
    "msgChannel.chanNamePrefix.dataCoordSegmentInfo" => settings.segment_info_channel = text;
    "etcd.rootPath" => settings.root_path = some_path;
    "localStorage.path" => local_path = some_text;
    "minio.address" => storage.address = text;
    "minio.port" => storage.port = port;
    "minio.accessKeyID" => storage.access_key_id = text;
    "minio.secretAccessKey" => storage.secret_access_key = text;
    "minio.useSSL" => storage.use_ssl = truth;
    "minio.bucketName" => storage.bucket = text;
    "minio.rootPath" => storage.root_path = path;
    "minio.useIAM" => storage.use_iam = truth;
    "minio.cloudProvider" => storage.cloud_provider = text;
    "minio.iamEndpoint" => storage.iam_endpoint = text;
    "minio.region" => storage.region = text;
    "minio.useVirtualHost" => storage.use_virtual_host = truth;
    "minio.requestTimeoutMs" => storage.request_timeout = milliseconds;
}

/// A key that we leave, and what to say of it.
pub(super) struct Noted {
    pub(super) name: &'static str,
    pub(super) fate: fn(&str) -> Fate,
}

macro_rules! noted {
    ($($name:literal => $fate:expr;)*) => {
        pub(super) static NOTED: &[Noted] = &[$(Noted { name: $name, fate: $fate },)*];
    };
}

const STANDBY: &str = "the address of the DataCoord that stands by in Milvus; ours is \
                       --listen-coordinator";
const MESSAGES: &str = "messages of 512 MiB are sent and taken";

noted! {
    "dataCoord.ip" => |_| Fate::Left(STANDBY);
    "dataCoord.port" => |_| Fate::Left(STANDBY);
    "dataCoord.enableActiveStandby" => |text| match truth(text) {
        Ok(true) => Fate::Left("right for the DataCoord in Milvus: it stands by"),
        Ok(false) | Err(_) => Fate::Warned(
            "set it to true where Milvus runs a DataCoord of its own (standalone, mixcoord): it \
             must stand by while ours serves",
        ),
    };
    "dataCoord.grpc.serverMaxSendSize" => |_| Fate::Left(MESSAGES);
    "dataCoord.grpc.serverMaxRecvSize" => |_| Fate::Left(MESSAGES);
    "dataCoord.grpc.clientMaxSendSize" => |_| Fate::Left(MESSAGES);
    "dataCoord.grpc.clientMaxRecvSize" => |_| Fate::Left(MESSAGES);
    "dataCoord.segment.allocLatestExpireAttempt" =>
        |_| Fate::Left("a take-over needs no timestamp of RootCoord");
    "dataCoord.channel.notifyChannelOperationTimeout" => |_| Fate::Left("2.3 does not use it");
    "dataCoord.checkAutoBalanceConfigInterval" =>
        |_| Fate::Left("settings are read once, at the start");
    "indexCoord.bindIndexNodeMode.withCred" => |_| Fate::Left("2.3 does not use it");
    "indexCoord.enableActiveStandby" => |_| Fate::Left("part of DataCoord since 2.3");
    "indexCoord.address" => |_| Fate::Left("part of DataCoord since 2.3");
    "indexCoord.port" => |_| Fate::Left("part of DataCoord since 2.3");
    "etcd.endpoints" => |_| Fate::Left("this process is that service: name our client addresses there");
    "etcd.metaSubPath" => |text| sub_path(text, "meta");
    "etcd.kvSubPath" => |text| sub_path(text, "kv");
    "etcd.use.embed" => |text| match truth(text) {
        Ok(true) => Fate::Warned("Milvus would use an etcd of its own and never find us"),
        Ok(false) | Err(_) => Fate::Left("for Milvus"),
    };
    "common.session.retryTimes" => |_| Fate::Left("the session is written until it stands");
    "metastore.type" => |text| match text {
        "etcd" => Fate::Left("for Milvus"),
        _ => Fate::Warned("records of Milvus must be in the etcd API that we serve"),
    };
}

/// A value with the function that reads it, which says its unit.
struct Shown<'a, V, F> {
    value: &'a V,
    unit: F,
}

impl<F> Shown<'_, Duration, F>
where
    F: Fn(&str) -> Result<Duration, String>,
{
    fn text(&self) -> String {
        // Read back: what `1` stands for is the unit.
        let one = (self.unit)("1").unwrap_or(Duration::from_secs(1));
        (self.value.as_millis() / one.as_millis().max(1)).to_string()
    }
}

impl<F> Shown<'_, Option<Duration>, F> {
    fn text(&self) -> String {
        self.value.map_or_else(|| "-1".to_owned(), |time| time.as_secs().to_string())
    }
}

impl<F> Shown<'_, Option<String>, F> {
    fn text(&self) -> String {
        self.value.clone().unwrap_or_default()
    }
}

macro_rules! shown_plainly {
    ($($value:ty,)*) => {$(
        impl<F> Shown<'_, $value, F> {
            fn text(&self) -> String {
                self.value.to_string()
            }
        }
    )*};
}

shown_plainly! { Allowed, String, bool, i64, u32, usize, u16, f64, }

fn sub_path(text: &str, expected: &'static str) -> Fate {
    if text == expected || text.is_empty() {
        Fate::Left("as it is here")
    } else {
        Fate::Warned("only the default (meta, kv) is understood here")
    }
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn some_text(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.to_owned()))
}

/// Without slashes at either end, as Milvus cleans it: it may be empty.
fn path(text: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

fn allowed(text: &str) -> Result<Allowed, String> {
    Allowed::parse(text)
}

fn only_true(text: &str) -> Result<bool, String> {
    match truth(text)? {
        true => Ok(true),
        false => {
            Err("data nodes must report their time ticks by RPC, or no segment is ever sealed \
                      or flushed: true is expected"
                .to_owned())
        }
    }
}

fn some_path(text: &str) -> Result<Option<String>, String> {
    path(text).map(Some)
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_not_one| "a whole number is expected".to_owned())
}

fn positive(text: &str) -> Result<i64, String> {
    match number(text)? {
        number if number > 0 => Ok(number),
        _ => Err("a whole number above 0 is expected".to_owned()),
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_not_one| "a whole number from 0 on is expected".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_not_one| "a whole number from 0 on is expected".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_not_one| "a port from 1 to 65535 is expected".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor >= 0.0 => Ok(factor),
        Ok(_) | Err(_) => Err("a number from 0 on is expected".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match factor(text) {
        Ok(share) if share <= 1.0 => Ok(share),
        Ok(_) | Err(_) => Err("a number from 0 to 1 is expected".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = factor(text).map_err(|_not_one| "a number of seconds is expected".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_not_one| "too many seconds".to_owned())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let ms = factor(text).map_err(|_not_one| "a number of milliseconds is expected".to_owned())?;
    Duration::try_from_secs_f64(ms / 1000.0).map_err(|_not_one| "too many milliseconds".to_owned())
}

/// Seconds; with zero or less rows live for ever.
fn expiration(text: &str) -> Result<Option<Duration>, String> {
    match number(text)? {
        seconds if seconds > 0 => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
        _ => Ok(None),
    }
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

fn is_remote(text: &str) -> Result<bool, String> {
    match text {
        "local" => Ok(false),
        "remote" | "minio" | "opendal" => Ok(true),
        _ => Err("local, remote or minio is expected".to_owned()),
    }
}
