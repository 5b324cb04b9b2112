/** The flags that every command with a model has. */

import { type Command, Option } from 'commander'
import { DEFAULT_DEVICE, DEVICES } from '../plugins.ts'
import { wholeNumber } from './values.ts'

export interface DeviceFlags {
  readonly device: string
  readonly threads?: number
}

export function addDeviceFlags(command: Command): Command {
  command.optionsGroup('Everywhere:')
  return command
    .addOption(
      new Option('--device <name>', 'where it runs')
        .choices(Object.keys(DEVICES))
        .default(DEFAULT_DEVICE),
    )
    .option('--threads <n>', 'threads (default: all cores, at most 8)', wholeNumber(1, 256))
    .option('--json', 'print one JSON object on standard output and nothing else')
}

export const ACTIVATIONS = ['f32', 'f16', 'bf16', 'int8', 'fp8'] as const
export type Activations = (typeof ACTIVATIONS)[number]
