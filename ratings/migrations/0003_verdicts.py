"""Where experiments stand, keys of the API, and verdicts on their way."""


import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('arena', '0004_experiments'),
        ('ratings', '0002_clustered'),
    ]

    operations = [
        migrations.CreateModel(
            name='ApiToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=120)),
                ('digest', models.CharField(editable=False, help_text='SHA-256.', max_length=64, unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked', models.BooleanField(default=False)),
            ],
            options={
                'verbose_name': 'API key',
            },
        ),
        migrations.CreateModel(
            name='Assessment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('last_vote_id', models.BigIntegerField()),
                ('last_exclusion_id', models.BigIntegerField()),
                ('simulated_counted', models.BooleanField()),
                ('verdict', models.CharField(blank=True, choices=[('pass', 'Pass'), ('regressed', 'Regressed'), ('inconclusive', 'Inconclusive')], help_text='Empty while it goes on.', max_length=12)),
                ('rule', models.CharField(blank=True, help_text='That gave the verdict.', max_length=20)),
                ('votes', models.PositiveIntegerField()),
                ('blocks', models.PositiveIntegerField(help_text='Complete ones.')),
                ('decided_at', models.PositiveIntegerField(help_text='Blocks, when it was decided.', null=True)),
                ('llr', models.FloatField()),
                ('log_e', models.FloatField()),
                ('estimate', models.FloatField(help_text='Elo of the candidate over the baseline.', null=True)),
                ('low', models.FloatField(help_text='95 % interval.', null=True)),
                ('high', models.FloatField(null=True)),
                ('findings', models.JSONField(help_text='Curves, counts, trust, slices, contributors, sound.')),
                ('seconds', models.FloatField(help_text='What it took.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('experiment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='assessments', to='arena.experiment')),
            ],
            options={
                'get_latest_by': 'pk',
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('due_at', models.DateTimeField(help_text='Empty when it arrived or was given up.', null=True)),
                ('delivered_at', models.DateTimeField(null=True)),
                ('body', models.TextField(blank=True, help_text='As sent, each time the same.')),
                ('answer', models.TextField(blank=True, help_text='The last one, shortened.')),
                ('error', models.TextField(blank=True)),
                ('assessment', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='delivery', to='ratings.assessment')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
            },
        ),
        migrations.AddIndex(
            model_name='assessment',
            index=models.Index(fields=['experiment', '-id'], name='assessment_latest'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='delivery_due'),
        ),
    ]
