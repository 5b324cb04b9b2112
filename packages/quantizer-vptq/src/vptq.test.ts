import { describeQuantizer } from '@lowbit/testing'
import { vptq } from './vptq.ts'

describeQuantizer(vptq, {
  bits: [],
  variants: [
    { bits: 2.25 },
    { vectorLength: 4, centroids: 16, residualCentroids: 8, tables: 'matrix' },
    { vectorLength: 8, centroids: 32, outliers: '10%', outlierCentroids: 32, tableType: 'f16' },
    { vectorLength: 2, centroids: 16, norm: 'range', order: 'none', sweeps: 0 },
    { vectorLength: 3, centroids: 16, groups: 3, tables: 'matrix', norm: 'none', tableType: 'f32' },
  ],
})
