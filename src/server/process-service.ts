/** braid.process.v1.Process: the settings a process runs with, for whoever compares those of a cluster. */
import type { GetSettingsResponse } from '../gen/braid/process/v1/process.ts';
import type { ServiceBuilder } from '../rpc/service-builder.ts';
import { processMethods } from '../rpc/services.ts';
import { formatSetting } from './config-sample.ts';
import type { LoadedConfig } from './config.ts';
import { type Role, settingName, SETTINGS } from './settings.ts';

/** What a process says about itself; it does not change while it runs. */
export interface ProcessFacts {
  /** Of the program. */
  readonly version: string;
  readonly role: Role;
  readonly settings: GetSettingsResponse['settings'];
}

/** @param origins where values come from; without it all count as defaults */
export function processFacts(
  role: Role,
  options: {
    readonly version: string;
    /** Sections as `config.ts` reads them. */
    readonly config: object;
    readonly origins?: LoadedConfig<unknown>['origins'] | undefined;
  },
): ProcessFacts {
  const sections = options.config as Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>>;
  return {
    version: options.version,
    role,
    settings: SETTINGS[role].map((setting) => {
      const name = settingName(setting);
      const value = sections[setting.section]?.[setting.property];
      return {
        name,
        value: JSON.stringify(value),
        text: formatSetting(setting, value),
        origin: options.origins?.get(name) ?? 'default',
      };
    }),
  };
}

export function addProcessService(builder: ServiceBuilder, facts: ProcessFacts): void {
  builder.unary(processMethods.getSettings, () => ({ ...facts, settings: [...facts.settings] }));
}
