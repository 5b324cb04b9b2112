import { describeQuantizer } from '@lowbit/testing'
import { gptvq } from './gptvq.ts'

describeQuantizer(gptvq, {
  variants: [
    {},
    { vectorLength: 2, centroids: 8, groupSize: 64, groupColumns: 16 },
    { vectorLength: 1, bitsPerValue: 3.125, seeding: 'kmeans++', tableType: 'f16' },
    { vectorLength: 4, centroids: 16, normalizeColumns: 16, groupColumns: 32, updates: 0 },
    { vectorLength: 2, bitsPerValue: 2.25, rounds: 2, tableType: 'f32' },
  ],
})
