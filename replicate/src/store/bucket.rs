//! A bucket, as far as it is asked for what `object_store` does not know: the uploads in parts that are not ended.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::DATE;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use serde::Deserialize;
use url::Url;

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A bucket, as far as it is needed to list the uploads in it.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) inner: Arc<AmazonS3>,
    client: HttpClient,
    url: Url,
    region: String,
}

/// A page of a listing, as S3 answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) upload: Vec<Upload>,
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
}

/// An upload in parts that is not ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: DateTime<Utc>,
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
    pub(super) async fn page(
        &self,
        prefix: &str,
        before: Option<&Page>,
    ) -> Result<(Page, DateTime<Utc>), Failure> {
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

pub(super) fn parse(xml: &[u8]) -> Result<Page, Failure> {
    Ok(quick_xml::de::from_reader(xml)?)
}
