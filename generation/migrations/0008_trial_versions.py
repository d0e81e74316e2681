"""A state for versions that experiments show and nobody else."""


from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('generation', '0007_uploads'),
    ]

    operations = [
        migrations.AlterField(
            model_name='version',
            name='state',
            field=models.CharField(choices=[('draft', 'Draft'), ('trial', 'On trial'), ('active', 'Active'), ('paused', 'Paused'), ('retired', 'Retired')], default='draft', max_length=8),
        ),
    ]
