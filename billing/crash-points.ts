/** Every boundary to the outside has a name here; a test kills a process at each of them. */
export const crashPoints = [
  'fetch.before_download',
  'fetch.after_archive',
  'fetch.after_register',
  'fetch.after_remove',
  'ingest.after_stage',
  'ingest.after_chunk',
  'ingest.before_release',
  'ingest.after_release',
  'notify.after_claim',
  'notify.after_send',
  'notify.after_outcome',
  'checkout.after_intent',
  'checkout.after_gateway',
  'charge.after_intent',
  'charge.after_gateway',
  'charge.after_outcome',
  'trace.before_lookup',
  'trace.after_lookup',
  'webhook.after_inbox',
  'reconcile.after_download',
  'deliver.after_freeze',
  'deliver.after_upload',
  'deliver.after_rename',
  'deliver.after_done_file',
] as const;

export type CrashPoint = (typeof crashPoints)[number];
