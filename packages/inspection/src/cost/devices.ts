/** Devices as data: what moves bytes and what multiplies, at most. */

import devices from './devices.json' with { type: 'json' }

export interface DeviceFacts {
  /** As it is named on a command line. */
  readonly name: string
  readonly title: string
  readonly memoryBytes: number
  /** Between the device's memory and its arithmetic. */
  readonly bytesPerSecond: number
  /** Between host and device. */
  readonly busBytesPerSecond: number
  /** Operations per second, a multiply-add counted as two: dense products with sums of at least 32 bits. */
  readonly flops: { readonly f32: number; readonly f16: number; readonly int8: number }
  readonly source: string
}

export const COST_DEVICES: readonly DeviceFacts[] = devices
