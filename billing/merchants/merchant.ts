import type { MerchantSettings } from './settings.ts';

/** A merchant with the settings that are current. */
export interface Merchant {
  id: number;
  code: string;
  /** First characters of its pay links' tokens. */
  shortCode: string;
  settingsVersion: number;
  settings: MerchantSettings;
}
