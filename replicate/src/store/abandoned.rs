//! Ending uploads in parts that a push began and could not end, because it was killed: S3 keeps their parts, and bills them, for
//! ever, and shows them in no listing of objects.
//!
//! `object_store` can end an upload that is known and does not list those that there are, so the listing is asked for here.

use chrono::{DateTime, TimeDelta, Utc};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Location;

use super::Store;
use super::bucket::{Failure, Page, Upload};
use super::patience::patience;

/// What is younger may be another process's, which is still sending it.
const ABANDONED: TimeDelta = TimeDelta::days(1);

/// Pages of 1,000 uploads that are looked at in one go; the rest is for the next process.
const PAGES: usize = 10;

/// Those that nobody goes on with, of keys that begin so.
fn abandoned<'a>(page: &'a Page, prefix: &str, now: DateTime<Utc>) -> Vec<&'a Upload> {
    // A store that does not know the prefix may list others too.
    let ours = |upload: &&Upload| upload.key.starts_with(prefix) && now - upload.initiated > ABANDONED;
    page.upload.iter().filter(ours).collect()
}

impl Store {
    /// Ends the uploads in parts that an earlier push left. Not every store lists them, or lets everybody do so, and what stays
    /// only costs room: failures are no errors.
    pub(crate) async fn end_abandoned_uploads(&self) {
        let Some(bucket) = &self.bucket else { return };
        let prefix = format!("{}/", self.prefix);
        let mut before = None;
        for _ in 0..PAGES {
            let asked = tokio::time::timeout(patience(0), bucket.page(&prefix, before.as_ref())).await;
            let (page, now) = match asked.map_err(Failure::from).and_then(|page| page) {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(place = self.place(), %error, "unfinished uploads cannot be listed here");
                    return;
                }
            };
            for upload in abandoned(&page, &prefix, now) {
                let Ok(location) = Location::parse(&upload.key) else { continue };
                let ending = bucket.inner.abort_multipart(&location, &upload.upload_id);
                let ended = tokio::time::timeout(patience(0), ending).await;
                match ended.map_err(Failure::from).and_then(|ended| ended.map_err(Failure::from)) {
                    Ok(()) => tracing::info!(key = upload.key, "ended an upload that a killed push left"),
                    Err(error) => {
                        tracing::debug!(key = upload.key, %error, "an upload that a killed push left stays");
                        return;
                    }
                }
            }
            if !page.is_truncated || page.next_key_marker.is_none() {
                return;
            }
            before = Some(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bucket::parse;
    use super::*;

    #[test]
    fn only_old_uploads_below_the_own_prefix_are_ended() {
        let upload = |key: &str, initiated: &str| {
            format!(
                "<Upload><Key>{key}</Key><UploadId>id</UploadId><Owner><ID>x</ID></Owner><Initiated>{initiated}</Initiated></Upload>"
            )
        };
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListMultipartUploadsResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>b</Bucket><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>m</NextKeyMarker>{}{}{}</ListMultipartUploadsResult>",
            upload("one/backups/old", "2026-11-01T00:00:00.000Z"),
            upload("one/backups/young", "2026-11-29T23:00:00.000Z"),
            upload("other/backups/old", "2026-11-01T00:00:00.000Z"),
        );
        let page = parse(xml.as_bytes()).unwrap();
        assert!(page.is_truncated && page.next_key_marker.as_deref() == Some("m"));
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        let keys: Vec<_> =
            abandoned(&page, "one/backups/", now).iter().map(|upload| upload.key.clone()).collect();
        assert_eq!(keys, ["one/backups/old"]);
        let none = parse(b"<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>");
        assert!(none.unwrap().upload.is_empty());
        assert!(parse(b"<html>no</html").is_err());
    }
}
