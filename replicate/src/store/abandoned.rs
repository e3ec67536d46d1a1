//! Ending uploads in parts that a push began and could not end, because it was killed: S3 keeps their parts, and bills them, for
//! ever, and shows them in no listing of objects.
//!
//! `object_store` can end an upload that is known and does not list those that there are, so the listing is asked for here.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::header::DATE;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Location;
use serde::Deserialize;
use url::Url;

use super::{Store, patience};

/// What is younger may be another process's, which is still sending it.
const ABANDONED: TimeDelta = TimeDelta::days(1);

/// Pages of 1,000 uploads that are looked at in one go; the rest is for the next process.
const PAGES: usize = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A bucket, as far as it is needed to list the uploads in it.
#[derive(Debug)]
pub(super) struct Bucket {
    inner: Arc<AmazonS3>,
    client: HttpClient,
    url: Url,
    region: String,
}

/// What S3 answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    upload: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: DateTime<Utc>,
}

impl Bucket {
    /// The bucket of this name at an endpoint (`https://…`, without the bucket).
    pub(super) fn new(
        inner: Arc<AmazonS3>,
        endpoint: &str,
        name: &str,
        region: &str,
        options: &ClientOptions,
    ) -> Result<Self, Failure> {
        let url = Url::parse(&format!("{}/{name}", endpoint.trim_end_matches('/')))?;
        let client = ReqwestConnector::default().connect(options)?;
        Ok(Bucket { inner, client, url, region: region.to_owned() })
    }

    /// A page of the uploads whose keys begin with `prefix`, after those of the page before, and the server's time.
    async fn page(&self, prefix: &str, before: Option<&Page>) -> Result<(Page, DateTime<Utc>), Failure> {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair("uploads", "").append_pair("prefix", prefix);
        if let Some(marker) = before.and_then(|before| before.next_key_marker.as_deref()) {
            query.append_pair("key-marker", marker);
        }
        if let Some(marker) = before.and_then(|before| before.next_upload_id_marker.as_deref()) {
            query.append_pair("upload-id-marker", marker);
        }
        drop(query);
        let mut request: HttpRequest =
            http::Request::get(url.as_str()).body(HttpRequestBody::from(Bytes::new()))?;
        let credential = self.inner.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()).into());
        }
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let now = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let now = now.map_or_else(Utc::now, |now| now.with_timezone(&Utc));
        Ok((parse(&answer.into_body().bytes().await?)?, now))
    }
}

fn parse(xml: &[u8]) -> Result<Page, Failure> {
    Ok(quick_xml::de::from_reader(xml)?)
}

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
